"""What ``check.py`` is made of: the load, the judgement, the report and the plot."""
