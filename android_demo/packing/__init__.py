"""How the APK is made: pack.py, one folder up, is the whole way in one pass; each file here is one step of it."""
