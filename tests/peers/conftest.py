"""These scripts run in the environments of other libraries; pytest must not import them."""

collect_ignore_glob = ["*.py"]
