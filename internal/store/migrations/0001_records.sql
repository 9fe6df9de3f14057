-- Every record is one JSON document; a column beside it exists only because something looks records up by it.
-- Times are Unix nanoseconds. "bang" in ASCII marks the file as banger's.
PRAGMA application_id = 0x62616e67;

CREATE TABLE kernel (
  id      TEXT PRIMARY KEY,
  name    TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  doc     TEXT NOT NULL
) STRICT;

CREATE TABLE image (
  id      TEXT PRIMARY KEY,
  name    TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  kernel  TEXT NOT NULL, -- a name: an image may be there before its kernel
  doc     TEXT NOT NULL
) STRICT;
CREATE INDEX image_kernel ON image (kernel);

-- The references keep an image or kernel from going away between a check and a creation, without a lock over both.
CREATE TABLE vm (
  id        TEXT PRIMARY KEY,
  name      TEXT NOT NULL UNIQUE,
  created   INTEGER NOT NULL,
  image_id  TEXT REFERENCES image (id),
  kernel_id TEXT REFERENCES kernel (id),
  doc       TEXT NOT NULL
) STRICT;
CREATE INDEX vm_image ON vm (image_id);
CREATE INDEX vm_kernel ON vm (kernel_id);

CREATE TABLE operation (
  id      TEXT PRIMARY KEY,
  created INTEGER NOT NULL,
  state   TEXT NOT NULL,
  doc     TEXT NOT NULL
) STRICT;
CREATE INDEX operation_created ON operation (created);
CREATE INDEX operation_running ON operation (id) WHERE state = 'running';
