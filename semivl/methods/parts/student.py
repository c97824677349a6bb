"""What learns in an encoder, beside what the encoder itself has names for."""

from semivl.nets.encoder import DenseEncoder, Trained


def train_for_outputs(encoder: DenseEncoder, which: Trained) -> None:
    """Chooses what learns when `outputs` alone is read: nothing of what leads only to dense embedding and skips."""
    encoder.train_parts(which)
    for unread in (encoder.projection, encoder.head, encoder.stem):
        if unread is not None:
            unread.requires_grad_(False)


def train_last(encoder: DenseEncoder, blocks: int) -> None:
    """Lets the last blocks learn, and what makes an embedding of their outputs."""
    encoder.requires_grad_(False)
    for part in (*encoder.layers()[-blocks:], encoder.ln_post, encoder.projection, encoder.head):
        if part is not None:
            part.requires_grad_(True)
