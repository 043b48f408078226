"""Names of files that other programs leave in a bundle's folder. They are ignored when a bundle is opened.

The list is complete, for readers in other languages as well. Names are compared in lower case, at any depth. A path
that the manifest names is never ignored, and any other file in the folder is refused by name."""

from fnmatch import fnmatchcase

# Files that file browsers write and write again: an export may delete these, and nothing else of this list.
DISPOSABLE = (
    ".ds_store",  # Finder, in every folder that it shows
    "._*",  # macOS, next to a file on a disk that is not Apple's
    "thumbs.db",  # Windows Explorer: this and the next three
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    ".nomedia",  # Android, and apps that hide pictures from its gallery
    ".directory",  # KDE's Dolphin
    ".localized",  # macOS
    "icon\r",  # a folder's own icon on macOS
)
FILES = (
    *DISPOSABLE,
    ".gitattributes",  # every repository of the Hugging Face hub has one
    ".gitignore",
    ".gitkeep",
    ".gitmodules",
    ".git",  # a file where the folder is a submodule or a worktree
    ".trashed-*",  # Android's media store: files in its waste bin, and files that are still being written
    ".pending-*",
    ".fuse_hidden*",  # files that were removed while they were open: FUSE, NFS
    ".nfs*",
    ".stignore",  # Syncthing: this and the next two
    ".syncthing.*.tmp",
    "~syncthing~*.tmp",
    ".dropbox",
    ".dropbox.attr",
    ".owncloudsync.log",
    ".nextcloudsync.log",
    ".sync_*.db*",  # ownCloud and Nextcloud, which also write ._sync_*.db
    ".metadata_never_index",  # macOS, on disks: this and the next two
    ".volumeicon.icns",
    ".com.apple.timemachine.donotpresent",
    ".apdisk",
    ".~lock.*#",  # LibreOffice, while a file is open
)
FOLDERS = (
    ".cache",  # hub downloads into a folder keep .cache/huggingface there
    ".huggingface",  # so did older ones
    ".git",
    ".svn",
    ".hg",
    ".thumbnails",  # Android's gallery, and older Linux desktops
    "lost.dir",  # Android's and Linux' file system checks
    "lost+found",
    ".trash-*",  # waste bins: Linux, macOS, Windows, Synology
    ".trashes",
    "$recycle.bin",
    "#recycle",
    ".spotlight-v100",  # macOS, on disks: this and the next three
    ".fseventsd",
    ".temporaryitems",
    ".documentrevisions-v100",
    ".appledouble",  # Netatalk
    "__macosx",  # archives that macOS made, unpacked elsewhere
    "system volume information",
    "@eadir",  # Synology
    ".stfolder",  # Syncthing: this and the next
    ".stversions",
    ".dropbox.cache",
    ".tmp.drivedownload",  # Google Drive: this and the next
    ".tmp.driveupload",
    ".ipynb_checkpoints",  # Jupyter
)


def is_left_over(name: str, *, folder: bool) -> bool:
    """Return True if `name`, one part of a path, is a file or a folder that other programs leave behind."""
    return _matches(name, FOLDERS if folder else FILES)


def is_worthless(name: str) -> bool:
    """Return True if the file `name` was written by a file browser and can be deleted without loss."""
    return _matches(name, DISPOSABLE)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
