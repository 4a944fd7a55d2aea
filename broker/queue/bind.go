package queue

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Bind says where copies of what is sent to a queue go.
type Bind struct {
	To       string   // a queue's name
	Selector Selector // of what is copied
	Skip     bool     // a destination that can not take its copy goes without; else the send is refused
}

// Equal reports whether both binds do the same. Both are in their normal form.
func (b Bind) Equal(o Bind) bool {
	return b.To == o.To && b.Skip == o.Skip && b.Selector.Equal(o.Selector)
}

// String says the bind in words.
func (b Bind) String() string {
	text := b.To
	if b.Selector.Kind != Any {
		text += " (" + b.Selector.String() + ")"
	}
	if b.Skip {
		text += " or skip"
	}
	return text
}

func bindsText(all []Bind) string {
	out := make([]string, len(all))
	for i, b := range all {
		out[i] = b.String()
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// checkBinds says what is wrong with the binds, if anything, and brings them into order. Whether the destinations are there
// is not its business.
func (s *Settings) checkBinds() error {
	if len(s.Binds) == 0 {
		return nil
	}
	if len(s.Binds) > limits.Binds {
		return reason.Invalid("settings.binds", "%d binds: a queue may have %d; bind it to one that hands on in turn", len(s.Binds), limits.Binds)
	}
	binds := slices.Clone(s.Binds) // others may share them
	for i := range binds {
		b := &binds[i]
		if err := CheckName(b.To); err != nil {
			return reason.Invalid("settings.binds", "binds: destination: %v", err)
		}
		selector, err := b.Selector.Check()
		if err != nil {
			return reason.Invalid("settings.binds", "binds: %s: %v", b.To, err)
		}
		b.Selector = selector
	}
	slices.SortFunc(binds, func(a, b Bind) int { return cmp.Compare(a.To, b.To) })
	for i := range binds[1:] {
		if binds[i].To == binds[i+1].To {
			return reason.Invalid("settings.binds", "binds: %s is named twice; a set of types is one bind, such as 1,2,3", binds[i].To)
		}
	}
	s.Binds = binds
	return nil
}
