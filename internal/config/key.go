package config

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/units"
)

// Kind is what a value is.
type Kind uint8

// The kinds of values.
const (
	Text        Kind = iota
	Path             // of a file or directory
	Switch           // true or false
	Number           // a whole number
	Size             // bytes, as units.ParseSize reads them
	Duration         // as time.ParseDuration reads them
	Word             // one of some words
	Mode             // permission bits, in octal digits
	User             // a name or a uid
	Group            // a name or a gid
	QueueName        // with its slash
	Pattern          // of path.Match over names of queues or rings
	Certificate      // a pattern of path.Match over names of certificates
	Limit            // a whole number, or unlimited
	SizeLimit        // bytes, or unlimited
	Map              // of the keys in Key.Keys
)

var kindNames = [...]string{"text", "path", "true or false", "number", "size", "duration", "word", "mode", "user", "group",
	"queue", "pattern", "certificate", "number or unlimited", "size or unlimited", "map"}

// String returns what the manual calls the kind.
func (k Kind) String() string { return kindNames[k] }

// Shape is how many values a key has.
type Shape uint8

// The shapes.
const (
	One   Shape = iota
	List        // any number of them
	Named       // one for each of some names, such as those of queues
)

// Key is one key of the configuration. The table of them is what a file is held against, and what the help, the manual
// and the shipped file are made of.
type Key struct {
	Name    string // the part of it after the last dot
	Shape   Shape
	Of      string // what the names of a Named one are, such as USER
	Kind    Kind
	Words   []string // that a Word may be
	Default string   // as a file says it; "": none, or another for everybody
	Example string   // where there is no default
	Meaning string   // a sentence
	Live    bool     // of outermost keys: a reload puts another value in force
	Keys    []Key    // of a Map, or of each of the maps that a List or Named holds
	Like    string   // the path of another key that has the same Keys

	least, most int64 // of numbers, and of bytes and nanoseconds
	off         bool  // 0 is allowed too

	// Where the value goes. at points to it; put is for what is more than that. Both are told the values of the Kind:
	// string, bool, int64, or access as a user or group.
	at  func(*place) any
	put func(l *loader, p *place, name string, v any)
	// begin, if set, is told that a Named one is there, be it empty.
	begin func(p *place)
	// enter makes room for a map that a List or Named holds, and is told its name, or in a List its path. done is called
	// when all of its keys were read. It may refuse the name: then there is no place.
	enter func(l *loader, p *place, name string) (inner *place, done func())
}

// unlimited is what a Limit may say instead of a number.
const unlimited = "unlimited"

// Allowed says which values are allowed; "" if the kind says it all.
func (k *Key) Allowed() string {
	switch k.Kind {
	case Switch:
		return kindNames[Switch]
	case Word:
		return list(k.Words)
	case Mode:
		return "permission bits in octal digits, such as 0660"
	case Number, Size, Duration:
		text := k.number(k.least)
		if k.most == math.MaxInt64 {
			text = "at least " + text
		} else {
			text += " to " + k.number(k.most)
		}
		if k.off {
			text = "0, or " + text
		}
		return text
	case Limit, SizeLimit:
		return "0 or more, or unlimited"
	}
	return ""
}

// number writes a value as a file would.
func (k *Key) number(n int64) string {
	switch k.Kind {
	case Size, SizeLimit:
		return sizeText(n)
	case Duration:
		return durationText(time.Duration(n))
	}
	return strconv.FormatInt(n, 10)
}

// wrong says what is wrong with a value that was read, if anything. shown is how it was written.
func (k *Key) wrong(v any, shown string) string {
	switch k.Kind {
	case Number, Size, Duration:
		n := v.(int64)
		if n >= k.least && n <= k.most || n == 0 && k.off {
			return ""
		}
		return shown + ": it must be " + k.Allowed()
	case Word:
		if s := v.(string); !contains(k.Words, s) {
			return quote(shown) + ": it must be " + list(k.Words) + didYouMean(s, k.Words)
		}
	}
	return ""
}

// value returns what at points to, as the readers return it, and how it is written.
func (k *Key) value(p *place) (v any, shown string) {
	r := reflect.ValueOf(k.at(p)).Elem()
	switch {
	case r.CanInt():
		return r.Int(), k.number(r.Int())
	case r.Kind() == reflect.Bool:
		return r.Bool(), strconv.FormatBool(r.Bool())
	}
	return r.String(), r.String()
}

// store puts a value where at points: to the variable, to a new one if it is a pointer, at the end of a slice, or
// into a map under the name.
func store(to any, name string, v any) {
	target, from := reflect.ValueOf(to).Elem(), reflect.ValueOf(v)
	switch target.Kind() {
	case reflect.Slice:
		target.Set(reflect.Append(target, from.Convert(target.Type().Elem())))
	case reflect.Map:
		if target.IsNil() {
			target.Set(reflect.MakeMap(target.Type()))
		}
		target.SetMapIndex(reflect.ValueOf(name), from.Convert(target.Type().Elem()))
	case reflect.Pointer:
		fresh := reflect.New(target.Type().Elem())
		fresh.Elem().Set(from.Convert(target.Type().Elem()))
		target.Set(fresh)
	default:
		target.Set(from.Convert(target.Type()))
	}
}

// sizeText writes bytes in the largest unit in which they are a whole number.
func sizeText(n int64) string {
	names := []string{"", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(names)-1 {
		n, i = n/1024, i+1
	}
	return strconv.FormatInt(n, 10) + names[i]
}

// durationText writes a duration without the units of which there are none.
func durationText(d time.Duration) string {
	text := d.String()
	if d == 0 || d%time.Minute != 0 {
		return text
	}
	text = strings.TrimSuffix(text, "0s")
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// parseScalar reads a value of the key's kind as it is written. A user or group is looked up, which the loader does.
func (k *Key) parseScalar(text string) (v any, wrong string) {
	switch k.Kind {
	case Switch:
		if text != "true" && text != "false" {
			return nil, quote(text) + ": it must be true or false"
		}
		return text == "true", ""
	case Number:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, quote(text) + " is no whole number: it must be " + k.Allowed()
		}
		return n, ""
	case Size:
		n, err := units.ParseSize(text)
		if err != nil {
			return nil, err.Error()
		}
		return n, ""
	case Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, quote(text) + " is no duration: write a number with its unit, such as 10s or 1m30s"
		}
		return int64(d), ""
	case Limit, SizeLimit:
		return k.parseLimit(text)
	case Mode:
		n, err := strconv.ParseUint(text, 8, 32)
		if err != nil || n > 0o777 {
			return nil, quote(text) + ": it must be " + k.Allowed()
		}
		return int64(n), ""
	case QueueName:
		if text != "" && !goodName(text) {
			return nil, badName("queue", text)
		}
	case Pattern:
		return parsePattern(text)
	case Certificate:
		return text, wrongCertificatePattern(text)
	}
	return text, ""
}

func (k *Key) parseLimit(text string) (any, string) {
	if text == unlimited {
		return int64(math.MaxInt64), ""
	}
	if k.Kind == SizeLimit {
		n, err := units.ParseSize(text)
		if err != nil {
			return nil, err.Error() + ", or " + unlimited
		}
		return n, ""
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, quote(text) + ": it must be " + k.Allowed()
	}
	return n, ""
}

// example is what an entry of a list may look like.
func example(k *Key) string {
	switch {
	case k.Kind == Map:
		return "{…}"
	case len(k.Words) > 0:
		return k.Words[0]
	}
	return "…"
}

// lineBelow tells what is allowed, after a sentence.
func lineBelow(k *Key) string {
	if allowed := k.Allowed(); allowed != "" && allowed != k.Kind.String() {
		return ": " + allowed
	}
	return ""
}

func find(keys []Key, name string) *Key {
	for i := range keys {
		if keys[i].Name == name {
			return &keys[i]
		}
	}
	return nil
}

// names returns the names of keys.
func names(keys []Key) []string {
	all := make([]string, len(keys))
	for i := range keys {
		all[i] = keys[i].Name
	}
	return all
}
