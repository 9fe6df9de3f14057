-- What the agent of a VM said last of its sessions: an index, for when it cannot be asked.
CREATE TABLE session (
  vm_id TEXT PRIMARY KEY REFERENCES vm (id) ON DELETE CASCADE,
  doc   TEXT NOT NULL
) STRICT;
