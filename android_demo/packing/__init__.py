"""The steps that make the APK, one in each file. pack.py, one folder up, runs all of them."""
