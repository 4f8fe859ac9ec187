"""The multipart reader: the same pieces however the body is cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from producer_admin.upload import FormEnd, PartBegin, PartData, PartEnd, Piece, PieceReader

BODY = (
    b"--edge\r\n"
    b'Content-Disposition: form-data; name="description"\r\n\r\n' + "Договор".encode() + b"\r\n--edge\r\n"
    b'Content-Disposition: form-data; name="file"; filename="'
    + "отчёт.pdf".encode()
    + b'"\r\nContent-Type: application/pdf\r\n\r\n'
    b"bytes\r\n--edg not the end\x00\r\n\r\n--edge--\r\n"
)


def read(chunks: list[bytes]) -> list[Piece]:
    """All pieces, with the data of a part joined."""
    reader = PieceReader(b"edge")
    pieces: list[Piece] = []
    for chunk in chunks:
        ready = reader.feed(chunk)
        while ready:
            piece = ready.popleft()
            if isinstance(piece, PartData) and isinstance(pieces[-1], PartData):
                pieces[-1] = PartData(pieces[-1].data + piece.data)
            else:
                pieces.append(piece)
    return pieces


@given(st.lists(st.integers(0, len(BODY)), max_size=10))
def test_a_body_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]
    assert read([BODY[start:end] for start, end in pairwise(edges)]) == [
        PartBegin("description", None, None),
        PartData("Договор".encode()),
        PartEnd(),
        PartBegin("file", "отчёт.pdf", "application/pdf"),
        PartData(b"bytes\r\n--edg not the end\x00\r\n"),
        PartEnd(),
        FormEnd(),
    ]
