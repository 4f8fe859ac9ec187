# cython: language_level=3, boundscheck=False, wraparound=False
"""Byte for byte the row that Python makes of the same record, or none: what is not usual is left to Python, which decides.

One pass over the record's bytes, which come from anywhere, so nothing is read beyond their end. Usual is a file that
exists, in version 1 of the schema, within the limits below. What words and values become is asked of `consumer_query` once
and remembered by their UTF-8; the rules are there alone. Only what joins them is done here: Avro (Avro 1.12
specification, "Binary encoding"), the row (record_recv in PostgreSQL's rowtypes.c; see `consumer_query.binary_rows`), and
in it the tsvector (tsvectorrecv in tsvector.c).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject_Hash
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

FORM = 2  # Of the rows, and of how they are asked for; see `consumer_query.usual_rows`.

cdef enum:
    HEADER = 10
    MOST_BYTES = 4000  # Of a record's value.
    ROOM = 4608  # For the fields: the above, the type and the size of each field, and the size of each tag.
    MOST_TAGS = 32
    MOST_PLACES = 1000  # Those of stop words and gaps included.
    MOST_PLACED = 140  # Words of a file, with repetitions.
    MOST_LEXEMES = 200  # Of a file: each word at most, each tag, and a dozen values.
    SLOTS = 512  # A power of two, more than twice the above.
    MOST_REMEMBERED = 50_000
    LONGEST_REMEMBERED = 128  # Bytes.
    MOST_MADE = 16  # Lexemes that are remembered of one text; a few characters stand for four words each.
    LONGEST_NUMBER = 64  # Digits. In a name such a word is a lexeme as it stands, and is not worth remembering.
    FIELDS = 19
    BOOL = 16  # This and the following are of pg_type.
    LONG = 20
    TEXT = 25
    TEXTS = 1009
    TIME = 1184
    UUID = 2950
    VECTOR = 3614
    D = 0
    C = 1
    B = 2
    A = 3

cdef int64_t DAY = 86_400_000_000
cdef int64_t EPOCH = 946_684_800_000_000  # Postgres counts from the year 2000.


cdef struct Text:
    const unsigned char* at
    Py_ssize_t size


cdef struct Cursor:
    const unsigned char* at
    const unsigned char* end
    bint bad  # Something was not as the schema has it; all that was read since means nothing.


cdef struct Event:
    Text event_id
    int64_t kind
    Text file_id
    unsigned char uuid[16]
    int64_t revision
    Text element
    Text name
    Text stored
    int64_t size
    Text mime
    int64_t created
    int64_t updated
    Text user
    bint has_full
    Text full
    bint has_description
    Text description
    bint has_version
    Text version
    int tag_count
    Text tags[MOST_TAGS]
    Text path
    Text checksum
    bint has_expires
    int64_t expires


cdef struct Out:
    char* at
    bint bad  # A text holds NUL.


cdef struct Lexeme:
    PyObject* text  # Kept alive by `Words.alive`.
    Py_hash_t hash
    int count
    int first
    int last


cdef inline int64_t read_number(Cursor* c) noexcept:
    cdef uint64_t found = 0
    cdef int shift = 0
    cdef unsigned char byte
    while c.at < c.end and shift < 64:
        byte = c.at[0]
        if shift == 63 and byte > 1:
            break  # more than 64 bits
        c.at += 1
        found |= (<uint64_t>(byte & 127)) << shift
        if byte < 128:
            return <int64_t>(found >> 1) ^ -<int64_t>(found & 1)
        shift += 7
    c.bad = True
    return 0


cdef inline Text read_text(Cursor* c) noexcept:
    cdef Text found
    found.size = read_number(c)
    found.at = c.at
    if c.bad or found.size < 0 or found.size > c.end - c.at:
        c.bad = True
        found.size = 0
    c.at += found.size
    return found


cdef inline bint read_is_there(Cursor* c) noexcept:
    """The branch of a union with null."""
    cdef int64_t branch = read_number(c)
    if branch != 0 and branch != 1:
        c.bad = True
    return branch == 1


cdef inline Text read_optional(Cursor* c, bint* is_there) noexcept:
    cdef Text found = Text(c.at, 0)
    is_there[0] = read_is_there(c)
    return read_text(c) if is_there[0] else found


cdef inline void put_int(Out* out, uint32_t value) noexcept:
    out.at[0] = value >> 24
    out.at[1] = value >> 16
    out.at[2] = value >> 8
    out.at[3] = value
    out.at += 4


cdef inline void put_field(Out* out, uint32_t type, Py_ssize_t size) noexcept:
    """What stands before a field; -1 is NULL."""
    put_int(out, type)
    put_int(out, <uint32_t>size)


cdef inline void put_long(Out* out, uint32_t type, int64_t value) noexcept:
    put_field(out, type, 8)
    put_int(out, <uint32_t>(<uint64_t>value >> 32))
    put_int(out, <uint32_t>value)


cdef inline void put_bytes(Out* out, Text text) noexcept:
    if memchr(text.at, 0, text.size) != NULL:
        out.bad = True
    memcpy(out.at, text.at, text.size)
    out.at += text.size


cdef inline void put_text(Out* out, Text text) noexcept:
    put_field(out, TEXT, text.size)
    put_bytes(out, text)


cdef inline void put_optional(Out* out, bint is_there, Text text) noexcept:
    if is_there:
        put_text(out, text)
    else:
        put_field(out, TEXT, -1)


cdef bint read_event(const unsigned char* at, const unsigned char* end, Event* event) noexcept:
    """False when it does not have metadata and all else that the schema says, or more tags than are usual."""
    cdef Cursor c = Cursor(at, end, False)
    cdef int64_t tag_count
    cdef int i
    event.event_id = read_text(&c)
    event.kind = read_number(&c)
    read_number(&c)  # when it happened
    event.file_id = read_text(&c)
    event.revision = read_number(&c)
    event.element = read_text(&c)
    if not read_is_there(&c):
        return False
    event.name = read_text(&c)
    event.stored = read_text(&c)
    event.size = read_number(&c)
    event.mime = read_text(&c)
    event.created = read_number(&c)
    event.updated = read_number(&c)
    event.user = read_text(&c)
    event.full = read_optional(&c, &event.has_full)
    event.description = read_optional(&c, &event.has_description)
    event.version = read_optional(&c, &event.has_version)
    tag_count = read_number(&c)
    if not 0 <= tag_count <= MOST_TAGS:
        return False
    event.tag_count = <int>tag_count
    for i in range(event.tag_count):
        event.tags[i] = read_text(&c)
    if event.tag_count and read_number(&c) != 0:
        return False  # in several blocks
    event.path = read_text(&c)
    event.checksum = read_text(&c)
    event.has_expires = read_is_there(&c)
    event.expires = read_number(&c) if event.has_expires else 0
    return not c.bad and c.at == c.end


cdef void put_fields(Out* out, const Event* event) noexcept:
    """All but the search vector."""
    cdef int i
    cdef Py_ssize_t size = 20
    put_int(out, FIELDS)
    put_field(out, UUID, 16)
    memcpy(out.at, event.uuid, 16)
    out.at += 16
    put_long(out, LONG, event.revision)
    put_field(out, BOOL, 1)
    out.at[0] = 0
    out.at += 1
    put_text(out, event.element)
    put_text(out, event.name)
    put_text(out, event.stored)
    put_long(out, LONG, event.size)
    put_text(out, event.mime)
    put_long(out, TIME, event.created - EPOCH)
    put_long(out, TIME, event.updated - EPOCH)
    put_text(out, event.user)
    put_optional(out, event.has_full, event.full)
    put_optional(out, event.has_description, event.description)
    put_optional(out, event.has_version, event.version)
    for i in range(event.tag_count):
        size += 4 + event.tags[i].size
    put_field(out, TEXTS, size if event.tag_count else 12)
    put_int(out, 1 if event.tag_count else 0)
    put_int(out, 0)
    put_int(out, TEXT)
    if event.tag_count:
        put_int(out, event.tag_count)
        put_int(out, 1)
    for i in range(event.tag_count):
        put_int(out, <uint32_t>event.tags[i].size)
        put_bytes(out, event.tags[i])
    put_text(out, event.path)
    put_text(out, event.checksum)
    if event.has_expires:
        put_long(out, TIME, event.expires - EPOCH)
    else:
        put_field(out, TIME, -1)


cdef bint read_file_id(Text text, unsigned char* uuid) noexcept:
    """False when it is not in the canonical form."""
    cdef int i
    cdef int digits = 0
    cdef unsigned char byte
    if text.size != 36:
        return False
    for i in range(36):
        byte = text.at[i]
        if i == 8 or i == 13 or i == 18 or i == 23:
            if byte != b"-":
                return False
            continue
        if 48 <= byte <= 57:
            byte -= 48
        elif 97 <= byte <= 102:
            byte -= 87
        else:
            return False
        uuid[digits >> 1] = uuid[digits >> 1] << 4 | byte
        digits += 1
    return True


cdef inline int bits_of(int64_t size) noexcept:
    cdef int found = 0
    while size:
        size >>= 1
        found += 1
    return found


cdef inline bint is_space(unsigned char byte) noexcept:
    """What str.split takes for a space, of ASCII; the rest of it stands within a word here, and its maker splits it."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


cdef inline bint joins_name(unsigned char byte) noexcept:
    return is_space(byte) or byte == b"." or byte == b"_" or byte == b"-"


cdef inline bytes bytes_of(Text text):
    return PyBytes_FromStringAndSize(<const char*>text.at, text.size)


cdef inline str str_of(Text text):
    return PyUnicode_DecodeUTF8(<const char*>text.at, text.size, NULL)


cdef int require_utf8(Text text) except -1:
    cdef Py_ssize_t i
    cdef unsigned char all_of_them = 0
    for i in range(text.size):
        all_of_them |= text.at[i]
    if all_of_them >= 128:
        str_of(text)
    return 0


cdef object tuple_new = tuple.__new__  # What a named tuple does, without its own call.


def lexemes_in(made):
    return sum(lexemes_in(one) if isinstance(one, tuple) else 1 for one in made)


class Remembered(dict):
    """What is made of texts that come again and again, by their UTF-8; emptied when full."""

    def __init__(self, make, of_numbers=True):
        self.make = make
        self.of_numbers = of_numbers

    def __missing__(self, raw):
        made = self.make(raw.decode())
        is_short = len(raw) <= LONGEST_REMEMBERED and lexemes_in(made) <= MOST_MADE
        if is_short and (self.of_numbers or not any(48 <= byte <= 57 for byte in raw)):
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[raw] = made
        return made


cdef object known(object remembered, bytes raw):
    cdef PyObject* found = PyDict_GetItem(remembered, raw)
    return <object>found if found != NULL else remembered.__missing__(raw)


cdef class Words:
    """The lexemes of one file: each once, with its places, in the order in which they came."""

    cdef Lexeme lexemes[MOST_LEXEMES]
    cdef short slots[SLOTS]  # Which lexeme is there, from 1; 0 is none.
    cdef uint16_t places[MOST_PLACED]
    cdef short following[MOST_PLACED]  # The next place of the same lexeme; -1 when there is none.
    cdef int many
    cdef int placed
    cdef Py_ssize_t size
    cdef list alive

    cdef void clear(self):
        memset(self.slots, 0, sizeof(self.slots))
        self.many = self.placed = 0
        self.size = 4
        self.alive = []

    cdef Lexeme* lexeme(self, bytes text) except NULL:
        cdef Py_hash_t hash = PyObject_Hash(text)
        cdef unsigned int slot = <unsigned int>hash & (SLOTS - 1)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
        cdef Lexeme* one
        while self.slots[slot]:
            one = &self.lexemes[self.slots[slot] - 1]
            if one.text == <PyObject*>text or (
                one.hash == hash
                and PyBytes_GET_SIZE(<object>one.text) == size
                and memcmp(PyBytes_AS_STRING(<object>one.text), PyBytes_AS_STRING(text), size) == 0
            ):
                return one
            slot = (slot + 1) & (SLOTS - 1)
        if self.many == MOST_LEXEMES:
            raise OverflowError
        self.alive.append(text)
        one = &self.lexemes[self.many]
        one[0] = Lexeme(<PyObject*>text, hash, 0, -1, -1)
        self.many += 1
        self.slots[slot] = self.many
        self.size += size + 2
        return one

    cdef int place(self, bytes text, int weight, int place) except -1:
        cdef Lexeme* one
        if PyBytes_GET_SIZE(text) == 0:  # a stop word
            return 0
        if self.placed == MOST_PLACED:
            raise OverflowError
        one = self.lexeme(text)
        self.places[self.placed] = <uint16_t>(weight << 14 | place)
        self.following[self.placed] = -1
        if one.count:
            self.following[one.last] = self.placed
        else:
            one.first = self.placed
        one.last = self.placed
        one.count += 1
        self.placed += 1
        self.size += 2
        return 0

    cdef int add_all(self, tuple texts) except -1:
        """Without places."""
        for text in texts:
            self.lexeme(<bytes>text)
        return 0

    cdef int place_all(self, tuple texts, int weight, int place) except -1:
        """Returns the place behind them."""
        for text in texts:
            self.place(<bytes>text, weight, place)
            place += 1
        return place

    cdef void put_vector(self, unsigned char* at):
        """To where there is room for `size` bytes."""
        cdef Lexeme* one
        cdef Py_ssize_t size
        cdef int i, place
        at[0] = at[1] = 0
        at = with_short(at + 2, self.many)
        for i in range(self.many):
            one = &self.lexemes[i]
            size = PyBytes_GET_SIZE(<object>one.text)
            memcpy(at, PyBytes_AS_STRING(<object>one.text), size)
            at = with_short(at + size, one.count)
            place = one.first
            while place >= 0:
                at = with_short(at, self.places[place])
                place = self.following[place]


cdef inline unsigned char* with_short(unsigned char* at, int value) noexcept:
    at[0] = value >> 8
    at[1] = value & 255
    return at + 2


cdef class RowMaker:
    """Makes rows of usual records.

    Args:
        header: what announces the schema
        event_types: of the schema's enumeration; the last one is deletion
        first, last: between which times lie, in microseconds since 1970
        gap: places between two fields or tags
        makers: `consumer_query.usual_rows.Makers`
        row_class, usual_class: named tuples, of file id, revision and record, and of such a row and an event type
    """

    cdef bytes header
    cdef tuple event_types
    cdef int64_t first, last
    cdef int gap
    cdef Words words
    cdef bint busy
    cdef object texts, names, people, types, tags, uploaders, elements
    cdef object whole_name, checksum, sizes, created, updated, kept, not_kept
    cdef type row_class, usual_class

    def __init__(
        self,
        bytes header,
        tuple event_types,
        int64_t first,
        int64_t last,
        int gap,
        makers,
        type row_class,
        type usual_class,
    ):
        self.header = header
        self.event_types = event_types
        self.first = first
        self.last = last
        self.gap = gap
        self.words = Words()
        self.texts = Remembered(makers.text)
        self.names = Remembered(makers.name, of_numbers=False)
        self.people = Remembered(makers.person)
        self.types = Remembered(makers.type)
        self.tags = Remembered(makers.tag)
        self.uploaders = Remembered(makers.uploader)
        self.elements = Remembered(makers.element)
        self.whole_name = makers.whole_name
        self.checksum = makers.checksum
        self.sizes = makers.sizes
        self.created = makers.created
        self.updated = makers.updated
        self.kept = makers.kept
        self.not_kept = makers.not_kept
        self.row_class = row_class
        self.usual_class = usual_class

    def row(self, bytes key, bytes value):
        """The row, and what happened; None when it is not a usual record."""
        cdef Event event
        cdef Out out
        cdef char fields[ROOM]
        cdef const unsigned char* at
        cdef Py_ssize_t size
        if key is None or value is None or not HEADER < PyBytes_GET_SIZE(value) <= MOST_BYTES:
            return None
        at = <const unsigned char*>PyBytes_AS_STRING(value)
        if memcmp(at, PyBytes_AS_STRING(self.header), HEADER) != 0:
            return None
        if not read_event(at + HEADER, at + PyBytes_GET_SIZE(value), &event) or not self._is_sound(key, &event):
            return None
        out.at = &fields[4]
        out.bad = False
        put_fields(&out, &event)
        if out.bad or self.busy:  # another thread makes a row
            return None
        self.busy = True
        try:
            if not self._search(&event):
                return None
            put_field(&out, VECTOR, self.words.size)
            size = out.at - fields
            out.at = fields
            put_int(&out, <uint32_t>(size - 4 + self.words.size))
            record = PyBytes_FromStringAndSize(NULL, size + self.words.size)
            memcpy(PyBytes_AS_STRING(record), fields, size)
            self.words.put_vector(<unsigned char*>PyBytes_AS_STRING(record) + size)
        except (UnicodeDecodeError, OverflowError):
            return None
        finally:
            self.busy = False
        made = tuple_new(self.row_class, (str_of(event.file_id), event.revision, record))
        return tuple_new(self.usual_class, (made, self.event_types[event.kind]))

    cdef bint _is_sound(self, bytes key, Event* event):
        """What `records` asks of one."""
        if not 0 <= event.kind < len(self.event_types) - 1 or event.revision < 1 or event.size < 0:
            return False
        if not read_file_id(event.file_id, event.uuid) or PyBytes_GET_SIZE(key) != event.file_id.size:
            return False
        if memcmp(PyBytes_AS_STRING(key), event.file_id.at, event.file_id.size) != 0:
            return False
        if not (self.first <= event.created <= self.last and self.first <= event.updated <= self.last):
            return False
        return not event.has_expires or self.first <= event.expires <= self.last

    cdef bint _search(self, const Event* event) except -1:
        """Gather the lexemes; False when positions beyond the usual are needed.

        Raises:
            UnicodeDecodeError: a text is no UTF-8.
            OverflowError: more words than are usual.
        """
        cdef Words words = self.words
        cdef int i, place
        cdef bytes person
        # Of what is not looked up below, as a whole or word by word.
        require_utf8(event.event_id)
        require_utf8(event.stored)
        require_utf8(event.path)
        if event.has_version:
            require_utf8(event.version)
        words.clear()
        words.lexeme(self.whole_name(str_of(event.name)))
        words.add_all(known(self.types, bytes_of(event.mime)))
        for i in range(event.tag_count):
            words.add_all(known(self.tags, bytes_of(event.tags[i])))
        words.add_all(known(self.uploaders, bytes_of(event.user)))
        words.add_all(known(self.elements, bytes_of(event.element)))
        words.lexeme(self.checksum(str_of(event.checksum)))
        words.lexeme(self.sizes[bits_of(event.size)])
        words.lexeme(self.created[event.created // DAY])
        words.lexeme(self.updated[event.updated // DAY])
        words.lexeme(self.kept[event.expires // DAY] if event.has_expires else self.not_kept)

        place = self._place_name(words, event.name) + self.gap
        for i in range(event.tag_count):
            place = words.place_all(known(self.texts, bytes_of(event.tags[i])), B, place) + self.gap
        place += self.gap
        person = bytes_of(event.user) + b" " + (bytes_of(event.full) if event.has_full else b"")
        place = words.place_all(known(self.people, person), D, place) + self.gap
        if event.has_description:
            place = self._place_text(words, event.description, place)
        return place <= MOST_PLACES

    cdef int _place_name(self, Words words, Text name) except -1:
        """First all words, then the parts of those that consist of several; returns the place behind them."""
        cdef const unsigned char* end = name.at + name.size
        cdef const unsigned char* at = name.at
        cdef Text word
        cdef bint is_number
        cdef int place = 1
        cdef list parts = []
        cdef tuple name_word
        while True:
            while at < end and joins_name(at[0]):
                at += 1
            if at == end:
                break
            word.at = at
            is_number = True
            while at < end and not joins_name(at[0]):
                is_number = is_number and 48 <= at[0] <= 57
                at += 1
            word.size = at - word.at
            if is_number and word.size <= LONGEST_NUMBER:
                words.place(bytes_of(word) + b"\0", A, place)
                place += 1
                continue
            name_word = <tuple>known(self.names, bytes_of(word))
            place = words.place_all(<tuple>name_word[0], A, place)
            parts += <tuple>name_word[1]
        if parts:
            place = words.place_all(tuple(parts), A, place + self.gap)
        return place

    cdef int _place_text(self, Words words, Text text, int place) except -1:
        cdef const unsigned char* end = text.at + text.size
        cdef const unsigned char* at = text.at
        cdef Text word
        while True:
            while at < end and is_space(at[0]):
                at += 1
            if at == end:
                return place
            word.at = at
            while at < end and not is_space(at[0]):
                at += 1
            word.size = at - word.at
            place = words.place_all(known(self.texts, bytes_of(word)), C, place)
