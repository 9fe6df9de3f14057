package opstate

// Reporter is what a service tells about a long piece of work. Its methods are cheap and may be called concurrently.
type Reporter interface {
	// Stage begins the named stage and ends the one before it.
	Stage(name string)
	// Progress says how much of the present stage is done, in unit (bytes, packages, files). total 0 is unknown.
	Progress(done, total int64, unit string)
	// ID is the id of the operation that the work is, or empty.
	ID() string
}

// Discard is a Reporter that forgets everything.
const Discard = discard(0)

type discard int

func (discard) Stage(string)                  {}
func (discard) Progress(int64, int64, string) {}
func (discard) ID() string                    { return "" }
