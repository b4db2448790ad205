"""Hands out the tests to the processes of pytest-xdist.

A file whose tests share something expensive (a processed site, a server, killed runs) stays in one process, which makes it once.
All other tests are handed out one by one, so that no process is left with a queue of slow ones. (xdist's own groups are not seen by pytest 9.)
"""
SHARING = {'test_docs.py', 'test_live.py', 'test_explorer.py', 'test_report.py', 'test_gradcam.py', 'test_mistakes.py', 'test_faithfulness.py',
           'test_augment.py', 'test_resnet.py', 'test_errors.py', 'test_killed.py', 'test_site.py'}


def unit(nodeid):
    "What is handed out together with a test: its file, or itself alone."
    file = nodeid.partition('::')[0].rpartition('/')[2]
    return file if file in SHARING else nodeid


def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid): return unit(nodeid)

    return Units(config, log)
