package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// history is the part of the commit graph that goes along.
type history struct {
	commits map[string]bool
	shallow []string // commits whose parents stay here, sorted
	refs    []ref    // tags and the upstream, sorted by name
	extra   []string // ids of objects that no commit leads to, such as annotated tags
}

type ref struct{ id, name string }

// spread bounds a history with many merges: no further generation begins once there are this many commits for each
// generation that was asked for.
const spread = 20

// readHistory walks from the commit that goes, generation by generation, and reads no more than it takes.
func (s *Source) readHistory(ctx context.Context) (*history, error) {
	cut, err := shallowCommits(s.repo.paths["shallow"])
	if err != nil {
		return nil, err
	}
	h := &history{commits: map[string]bool{s.repo.Commit: true}}
	depth := s.repo.opts.Depth
	if s.repo.partial {
		depth = 1
	}
	err = s.eachParents(ctx, func(parents func(id string) ([]string, error)) error {
		return h.walk(s.repo.Commit, depth, cut, parents)
	})
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", s.repo.Commit, err)
	}
	slices.Sort(h.shallow)
	return h, s.readRefs(ctx, h)
}

func (h *history) walk(head string, depth int, cut map[string]bool, parents func(string) ([]string, error)) error {
	generation := []string{head}
	for n := 1; len(generation) > 0; n++ {
		last := n >= depth || len(h.commits) >= spread*depth
		var next []string
		for _, id := range generation {
			ps, err := parents(id)
			if err != nil {
				return err
			}
			if cut[id] || last && slices.ContainsFunc(ps, func(p string) bool { return !h.commits[p] }) {
				h.shallow = append(h.shallow, id)
				continue
			}
			for _, p := range ps {
				if !h.commits[p] {
					h.commits[p] = true
					next = append(next, p)
				}
			}
		}
		generation = next
	}
	return nil
}

// shallowCommits reads the ids in a shallow repository's list of commits without parents.
func shallowCommits(path string) (map[string]bool, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	cut := make(map[string]bool)
	for id := range strings.FieldsSeq(string(b)) {
		cut[id] = true
	}
	return cut, nil
}

// eachParents calls walk with a function that asks one git process for the parents of a commit, again and again.
func (s *Source) eachParents(ctx context.Context, walk func(func(string) ([]string, error)) error) error {
	// A pipe of the system's, so that a git that dies is noticed though nothing is asked of it.
	ask, question, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ask.Close()
	answer, reply := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := s.git.Run(ctx, ask, reply, "cat-file", "--batch")
		reply.CloseWithError(errors.Join(err, io.ErrUnexpectedEOF))
		ended <- err
	}()
	r := bufio.NewReader(answer)
	err = walk(func(id string) ([]string, error) {
		if _, err := io.WriteString(question, id+"\n"); err != nil {
			return nil, err
		}
		return readParents(r, id)
	})
	question.Close()
	answer.Close() // ends an answer that nobody reads
	if runErr := <-ended; err == nil {
		err = runErr
	}
	return err
}

// readParents reads one answer of git cat-file --batch: a line with id, type and size, the object, a newline.
func readParents(r *bufio.Reader, id string) ([]string, error) {
	header, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var got, kind string
	var size int
	if _, err := fmt.Sscanf(header, "%s %s %d", &got, &kind, &size); err != nil || kind != "commit" {
		return nil, errkind.WithHint(errkind.New(api.KindDataLoss, "commit %s cannot be read: %q", id, strings.TrimSpace(header)),
			"`git fsck` says what is wrong with the repository")
	}
	body := make([]byte, size+1)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	var parents []string
	for line := range bytes.Lines(body) {
		if p, ok := bytes.CutPrefix(line, []byte("parent ")); ok {
			parents = append(parents, string(bytes.TrimSpace(p)))
		} else if len(bytes.TrimSpace(line)) == 0 {
			break // the message follows
		}
	}
	return parents, nil
}

// readRefs finds the refs whose commits go along: every tag, so that `git describe` works, and the branch's upstream.
func (s *Source) readRefs(ctx context.Context, h *history) error {
	out, err := s.git.Output(ctx, "for-each-ref", "--format=%(refname) %(objecttype) %(objectname) %(*objectname)", "refs/tags")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[1] == "commit" && h.commits[f[2]]:
			h.refs = append(h.refs, ref{f[2], f[0]})
		case len(f) == 4 && f[1] == "tag" && h.commits[f[3]]:
			h.refs = append(h.refs, ref{f[2], f[0]})
			h.extra = append(h.extra, f[2])
		}
	}
	remote, merge := s.repo.config.get("branch."+s.repo.local+".remote"), s.repo.config.get("branch."+s.repo.local+".merge")
	branch, ok := strings.CutPrefix(merge, "refs/heads/")
	if !ok || !slices.Contains(s.remotes(), remote) {
		return nil
	}
	name := "refs/remotes/" + remote + "/" + branch
	id, err := resolve(ctx, s.git, name)
	if err == nil && h.commits[id] {
		h.refs = append(h.refs, ref{id, name})
	}
	return err
}
