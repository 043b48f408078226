"""Installers of the stand-ins for a phone. The runtime finds the installed folders, and never imports this package."""
