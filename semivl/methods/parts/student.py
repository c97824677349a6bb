"""What learns in an encoder whose ordinary block outputs are read, as UniMatch and UniMatch V2 do."""

from semivl.nets.encoder import DenseEncoder, Trained


def train_for_outputs(encoder: DenseEncoder, which: Trained) -> None:
    """Chooses what learns when `outputs` alone is read: nothing of what leads only to dense embedding and skips."""
    encoder.train_parts(which)
    for unread in (encoder.projection, encoder.head, encoder.stem):
        if unread is not None:
            unread.requires_grad_(False)
