"""The report room: sets of results in; tables, intervals and a page out.

    config -> pairing -> catalogue (which metrics) -> measure | clips -> Report -> tables | page

Nothing is imported here: the command line needs `restore.reports.config` before it needs torch.
"""
