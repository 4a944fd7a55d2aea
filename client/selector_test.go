package client

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

var typeNames = map[string]int64{"created": 7, "deleted": 8}

// SEMANTICS 10.
func TestSelectorsAreReadAsPeopleWriteThem_S10(t *testing.T) {
	for text, want := range map[string]Selector{
		"":                    {},
		"any":                 {},
		"7":                   Type(7),
		" 7 ":                 Type(7),
		"created":             Type(7),
		"upto:7":              UpTo(7),
		"<=7":                 UpTo(7),
		"<=created":           UpTo(7),
		"not:7":               Not(7),
		"!7":                  Not(7),
		"!deleted":            Not(8),
		"3,1,2,2":             OneOf(1, 2, 3),
		"deleted, created":    OneOf(7, 8),
		"9223372036854775807": Type(9223372036854775807),
	} {
		got, err := ParseSelector(text, typeNames)
		if err != nil || !proto.Equal(got.proto(), want.proto()) {
			t.Errorf("ParseSelector(%q) = %v, %v, want %v", text, got, err, want)
		}
		again, err := ParseSelector(got.String(), nil)
		if err != nil || !proto.Equal(again.proto(), want.proto()) {
			t.Errorf("%q is read as %v, %v, want %v", got.String(), again, err, want)
		}
		if back := selectorOf(want.proto()); back.Kind() != want.Kind() || !slices.Equal(back.Types(), want.Types()) {
			t.Errorf("%v comes back as %v", want, back)
		}
	}
}

func TestNonsenseIsNoSelector(t *testing.T) {
	for _, text := range []string{"0", "-7", "7,", ",", "x", "upto:", "not:0", "<=-1", "1,x", "1;2", "9223372036854775808", strings.Repeat("1,", 2000) + "1"} {
		if s, err := ParseSelector(text, nil); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("ParseSelector(%.20q) = %v, %v, want ErrInvalidArgument", text, s, err)
		}
	}
	_, err := ParseSelector("creatd", typeNames)
	if err == nil || !strings.Contains(err.Error(), "created, deleted") {
		t.Errorf("%v does not name the types there are", err)
	}
}
