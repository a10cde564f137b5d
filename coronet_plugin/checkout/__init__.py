"""The plug-in in a checkout of upstream: install, uninstall, doctor, and scripts run without installing."""
