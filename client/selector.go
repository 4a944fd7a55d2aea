package client

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// SelectorKind is one of the ways to choose among types.
type SelectorKind uint8

// The kinds of selectors.
const (
	SelectAny   SelectorKind = iota // every message
	SelectType                      // exactly this type
	SelectUpTo                      // the lowest type that is at most this one
	SelectNot                       // any type but this one
	SelectOneOf                     // any of a set of types
)

// Selector chooses messages by their type, as msgrcv(2) does. The zero Selector chooses any.
type Selector struct {
	kind  SelectorKind
	types []int64
}

// Type selects messages of exactly this type.
func Type(t int64) Selector { return Selector{SelectType, []int64{t}} }

// UpTo selects messages of the lowest type that is at most t, as msgrcv(2) with a negative mtype.
func UpTo(t int64) Selector { return Selector{SelectUpTo, []int64{t}} }

// Not selects messages of any type but t, as msgrcv(2) with MSG_EXCEPT.
func Not(t int64) Selector { return Selector{SelectNot, []int64{t}} }

// OneOf selects messages of any of these types.
func OneOf(types ...int64) Selector { return Selector{SelectOneOf, append([]int64(nil), types...)} }

// Kind returns the way in which the selector chooses.
func (s Selector) Kind() SelectorKind { return s.kind }

// Types returns the types that the selector names: one, or more for SelectOneOf, or none for SelectAny.
func (s Selector) Types() []int64 { return append([]int64(nil), s.types...) }

// ParseSelector reads a selector as people write it: "7", "upto:7" or "<=7", "not:7" or "!7", "1,2,3",
// and "any" or "" for any. Names of types, as in QueueSettings.TypeNames, may stand for numbers; a type named
// "any" is reached by its number.
func ParseSelector(text string, typeNames map[string]int64) (Selector, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "any" {
		return Selector{}, nil
	}
	one := func(rest string, make func(int64) Selector) (Selector, error) {
		t, err := parseType(rest, typeNames)
		if err != nil {
			return Selector{}, err
		}
		return make(t), nil
	}
	for _, prefix := range [...]struct {
		text string
		make func(int64) Selector
	}{{"upto:", UpTo}, {"<=", UpTo}, {"not:", Not}, {"!", Not}} {
		if rest, ok := strings.CutPrefix(text, prefix.text); ok {
			return one(rest, prefix.make)
		}
	}
	if !strings.Contains(text, ",") {
		return one(text, Type)
	}
	if n := strings.Count(text, ",") + 1; n > limits.SelectorTypes {
		return Selector{}, newError(reason.InvalidArgument, "a set of %d types: it may have %d", n, limits.SelectorTypes)
	}
	var types []int64
	for part := range strings.SplitSeq(text, ",") {
		t, err := parseType(part, typeNames)
		if err != nil {
			return Selector{}, err
		}
		types = append(types, t)
	}
	slices.Sort(types)
	return OneOf(slices.Compact(types)...), nil
}

// ParseType reads one type of a message: a positive number, or a name, as in QueueSettings.TypeNames.
func ParseType(text string, typeNames map[string]int64) (int64, error) {
	return parseType(text, typeNames)
}

func parseType(text string, typeNames map[string]int64) (int64, error) {
	text = strings.TrimSpace(text)
	if t, ok := typeNames[text]; ok {
		return t, nil
	}
	t, err := strconv.ParseInt(text, 10, 64)
	if err == nil && t > 0 {
		return t, nil
	}
	allowed := "a positive number"
	if len(typeNames) > 0 {
		names := slices.Sorted(maps.Keys(typeNames))
		if len(names) > 8 {
			names = append(names[:8], "...")
		}
		allowed += " or one of the queue's names: " + strings.Join(names, ", ")
	}
	return 0, newError(reason.InvalidArgument, "type %.80q: it must be %s", text, allowed)
}

// String writes the selector as ParseSelector reads it.
func (s Selector) String() string {
	switch s.kind {
	case SelectType:
		return strconv.FormatInt(s.types[0], 10)
	case SelectUpTo:
		return fmt.Sprintf("upto:%d", s.types[0])
	case SelectNot:
		return fmt.Sprintf("not:%d", s.types[0])
	case SelectOneOf:
		return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(s.types)), ","), "[]")
	}
	return "any"
}

// MarshalText writes the selector as String does.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// proto returns nil for a selector that chooses any.
func (s Selector) proto() *ipcdv1.Selector {
	switch s.kind {
	case SelectType:
		return &ipcdv1.Selector{Kind: &ipcdv1.Selector_Type{Type: s.types[0]}}
	case SelectUpTo:
		return &ipcdv1.Selector{Kind: &ipcdv1.Selector_LowestUpto{LowestUpto: s.types[0]}}
	case SelectNot:
		return &ipcdv1.Selector{Kind: &ipcdv1.Selector_NotType{NotType: s.types[0]}}
	case SelectOneOf:
		return &ipcdv1.Selector{Kind: &ipcdv1.Selector_Types{Types: &ipcdv1.TypeSet{Types: s.types}}}
	}
	return nil
}

func selectorOf(p *ipcdv1.Selector) Selector {
	switch k := p.GetKind().(type) {
	case *ipcdv1.Selector_Type:
		return Type(k.Type)
	case *ipcdv1.Selector_LowestUpto:
		return UpTo(k.LowestUpto)
	case *ipcdv1.Selector_NotType:
		return Not(k.NotType)
	case *ipcdv1.Selector_Types:
		return OneOf(k.Types.GetTypes()...)
	}
	return Selector{}
}
