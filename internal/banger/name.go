package banger

import (
	"math/rand/v2"
	"regexp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

var label = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName checks the name of a VM, image or kernel: a DNS label of RFC 1035, lower case, at most 63 characters.
func CheckName(what, name string) error {
	if label.MatchString(name) {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindInvalid, "bad %s name %q", what, name),
		"use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen")
}

// RandomName returns a name of two words for a VM that was given none. Names may repeat; the caller tries again.
func RandomName() string {
	return adjectives[rand.IntN(len(adjectives))] + "-" + animals[rand.IntN(len(animals))]
}

var adjectives = []string{
	"able", "amber", "azure", "bold", "brave", "brisk", "bright", "calm", "civil", "clear", "clever", "cosy", "crisp",
	"dapper", "deft", "eager", "early", "fair", "fancy", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden",
	"grand", "green", "handy", "happy", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky",
	"mellow", "merry", "mild", "neat", "nimble", "noble", "plain", "proud", "quick", "quiet", "rapid", "ready", "royal",
	"sharp", "shiny", "silent", "sleek", "smart", "snug", "solid", "spry", "sunny", "swift", "tidy", "vivid", "warm",
	"wise", "witty", "young", "zesty",
}

var animals = []string{
	"ant", "badger", "bat", "bear", "beaver", "bee", "bison", "bream", "carp", "cat", "cod", "crab", "crane", "crow",
	"deer", "dingo", "dove", "duck", "eagle", "eel", "egret", "elk", "falcon", "ferret", "finch", "fox", "frog", "gecko",
	"goat", "goose", "grouse", "gull", "hare", "hawk", "heron", "horse", "ibex", "ibis", "jay", "koala", "lark", "lemur",
	"lion", "llama", "lynx", "magpie", "marten", "mink", "mole", "moose", "moth", "mouse", "newt", "ocelot", "orca",
	"otter", "owl", "panda", "perch", "pike", "pony", "puffin", "quail", "rabbit", "raven", "robin", "seal", "shrew",
	"snail", "stoat", "stork", "swan", "tern", "tiger", "toad", "trout", "vole", "walrus", "wasp", "weasel", "whale",
	"wolf", "wren", "yak", "zebra",
}
