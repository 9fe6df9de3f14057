-- A VM's address in the bridge's network. It is a column of the VM's row, so that it is taken with the name and free with it.
ALTER TABLE vm ADD COLUMN address TEXT;
CREATE UNIQUE INDEX vm_address ON vm (address);
