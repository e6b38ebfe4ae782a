"""Which batch sizes fit a number of devices."""


def check_batch_size(batch_size: int, devices: int, accumulate: int = 1) -> None:
    """Raise unless every device gets equally many images, in every micro-batch.

    Args:
        batch_size: Images per update, over all devices.
        devices: Number of devices, over all processes.
        accumulate: Number of micro-batches per update.

    Raises:
        ValueError: If ``devices * accumulate`` does not divide ``batch_size``; it names the
            nearest sizes that fit.

    Example:
        >>> check_batch_size(96, devices=8, accumulate=2)
    """
    unit = devices * accumulate
    if batch_size % unit == 0:
        return
    below = batch_size // unit * unit
    nearest = f"nearest are {below} and {below + unit}" if below else f"smallest is {unit}"
    parts = [f"{devices} devices"] * (devices > 1) + [f"{accumulate} micro-batches"] * (
        accumulate > 1
    )
    raise ValueError(
        f"`batch_size` (={batch_size}) must be a multiple of {unit} ({' x '.join(parts)}); the "
        f"{nearest}."
    )


def round_up(batch_size: int, devices: int) -> int:
    """Return the smallest multiple of ``devices`` that is at least ``batch_size``."""
    return -(-batch_size // devices) * devices
