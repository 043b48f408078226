"""The two kinds of failure. The message is one line for a person: what is wrong, where, and what to do."""


class PocketDiffusionError(Exception):
    """The base of both. The command line catches it, prints only the message and exits with `exit_code`."""

    exit_code = 2


class UserError(PocketDiffusionError):
    """The user's input cannot be used: exit code 2."""


class ProofError(PocketDiffusionError):
    """An artifact is not what it claims to be: exit code 1."""

    exit_code = 1
