"""What can go wrong with the stack, in sentences for the person at the terminal."""


class DevstackError(Exception):
    """The command could not be done; its text names the thing, the reason and the remedy."""

    exit_code = 1


class PortTaken(DevstackError):
    """Somebody else took a port between its choice and its use."""


class UsageError(DevstackError):
    """What was asked for is wrong: another try changes nothing."""

    exit_code = 2
