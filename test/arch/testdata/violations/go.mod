module github.com/banger-vm/banger

go 1.26

require example.org/other v0.0.0

replace example.org/other => ./other
