-- What happened, in order. seq is given out once and never again (AUTOINCREMENT), so it is a client's place in the stream.
CREATE TABLE event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  doc TEXT NOT NULL
) STRICT;
