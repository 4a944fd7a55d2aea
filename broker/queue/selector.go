package queue

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// SelectorKind is one of the ways to choose among types.
type SelectorKind uint8

const (
	Any        SelectorKind = iota // every message
	TypeIs                         // type = Type
	LowestUpTo                     // the lowest type <= Type: msgrcv(2) with a negative mtype
	TypeIsNot                      // type != Type: msgrcv(2) with MSG_EXCEPT
	TypeIn                         // type in Types
)

// Selector chooses messages by type. The zero Selector chooses any.
type Selector struct {
	Kind  SelectorKind
	Type  int64
	Types []int64 // sorted, without repeats, if Kind is TypeIn
}

// Check returns the selector in its normal form, or what is wrong with it.
func (s Selector) Check() (Selector, error) {
	switch s.Kind {
	case Any:
		return Selector{}, nil
	case TypeIs, LowestUpTo, TypeIsNot:
		if s.Type <= 0 {
			return s, reason.Invalid("selector", "selector with type %d: types are positive", s.Type)
		}
		return Selector{Kind: s.Kind, Type: s.Type}, nil
	case TypeIn:
		if len(s.Types) == 0 || len(s.Types) > limits.SelectorTypes {
			return s, reason.Invalid("selector", "a set of %d types: it must have 1 to %d", len(s.Types), limits.SelectorTypes)
		}
		types := slices.Clone(s.Types)
		slices.Sort(types)
		types = slices.Compact(types)
		if types[0] <= 0 {
			return s, reason.Invalid("selector", "a set with type %d: types are positive", types[0])
		}
		return Selector{Kind: TypeIn, Types: types}, nil
	}
	return s, reason.Invalid("selector", "selector of unknown kind %d", s.Kind)
}

// Equal reports whether both choose in the same way. Both are in their normal form.
func (s Selector) Equal(o Selector) bool {
	return s.Kind == o.Kind && s.Type == o.Type && slices.Equal(s.Types, o.Types)
}

// Matches reports whether a message of type t may be chosen. s is in its normal form.
func (s Selector) Matches(t int64) bool {
	switch s.Kind {
	case TypeIs:
		return t == s.Type
	case LowestUpTo:
		return t <= s.Type
	case TypeIsNot:
		return t != s.Type
	case TypeIn:
		_, found := slices.BinarySearch(s.Types, t)
		return found
	}
	return true
}

// String writes the selector as ipcctl reads it.
func (s Selector) String() string {
	switch s.Kind {
	case TypeIs:
		return fmt.Sprint(s.Type)
	case LowestUpTo:
		return fmt.Sprintf("upto:%d", s.Type)
	case TypeIsNot:
		return fmt.Sprintf("not:%d", s.Type)
	case TypeIn:
		var text strings.Builder
		for i, t := range s.Types {
			if i > 0 {
				text.WriteByte(',')
			}
			text.WriteString(strconv.FormatInt(t, 10))
		}
		return text.String()
	}
	return "any"
}
