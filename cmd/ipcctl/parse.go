package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipcd/ipcd/internal/suggest"
	"github.com/ipcd/ipcd/internal/units"
)

// queueName adds the slash that people may leave out.
func queueName(arg string) string {
	if strings.HasPrefix(arg, "/") {
		return arg
	}
	return "/" + arg
}

// parseSize reads a number of bytes such as 512, 64KiB, 64K (the same) or 64kB (64,000).
func parseSize(s string) (uint64, error) {
	n, err := units.ParseSize(s)
	return uint64(n), err
}

// parseCount reads a whole number.
func parseCount(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number: write 0 to %d", quoteArg(s), int64(math.MaxInt64))
	}
	return n, nil
}

// parseNumber reads a whole number from low to high.
func parseNumber[T int | uint16 | uint32](low, high T) func(string) (T, error) {
	return func(s string) (T, error) {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil || n < uint64(low) || n > uint64(high) {
			return 0, fmt.Errorf("%s: write %d to %d", quoteArg(s), low, high)
		}
		return T(n), nil
	}
}

// parseDuration reads what time.ParseDuration does, and days in front: 1d, 1d12h.
func parseDuration(s string) (time.Duration, error) {
	bad := func() (time.Duration, error) {
		return 0, fmt.Errorf("%s is no duration: write 500ms, 30s, 5m, 1h30m or 2d", quoteArg(s))
	}
	rest, days := s, uint64(0)
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(before, 10, 64)
		if err != nil || n > math.MaxInt64/uint64(24*time.Hour) {
			return bad()
		}
		if rest, days = after, n; rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return bad()
	}
	d += time.Duration(days) * 24 * time.Hour
	if d < 0 {
		return bad()
	}
	return d, nil
}

// parseSequences reads a range of sequences: A-B, A- or -B with both ends included, or one, A. An
// end that is left open is 0.
func parseSequences(s string) (sequences, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	bad := fmt.Errorf("%s is no range of sequences: write 10-20, 10-, -20 or 10", quoteArg(s))
	var r sequences
	for _, end := range []struct {
		text string
		to   *uint64
	}{{first, &r.first}, {last, &r.last}} {
		if end.text == "" && isRange {
			continue
		}
		n, err := strconv.ParseUint(end.text, 10, 64)
		if err != nil || n == 0 {
			return sequences{}, bad
		}
		*end.to = n
	}
	if r == (sequences{}) || r.last != 0 && r.first > r.last {
		return sequences{}, bad
	}
	return r, nil
}

// sequences is a range, both ends included; 0 leaves an end open.
type sequences struct{ first, last uint64 }

// header is one name and value.
type header struct{ key, value string }

// parseHeader reads key=value. The value may be empty and may hold further equals signs.
func parseHeader(s string) (header, error) {
	key, value, found := strings.Cut(s, "=")
	if !found || key == "" {
		return header{}, fmt.Errorf("%s is no header: write NAME=VALUE", quoteArg(s))
	}
	if !utf8.ValidString(key) {
		return header{}, fmt.Errorf("%s: a header's name must be UTF-8", quoteArg(s))
	}
	return header{key, value}, nil
}

// parseTypeNames reads name=type pairs, separated by commas. An empty text has none.
func parseTypeNames(s string) (map[string]int64, error) {
	names := map[string]int64{}
	for pair := range strings.SplitSeq(s, ",") {
		if pair == "" {
			continue
		}
		name, number, found := strings.Cut(pair, "=")
		t, err := parseType(number)
		if !found || name == "" || err != nil {
			return nil, fmt.Errorf("%s is no name of a type: write NAME=TYPE such as created=7", quoteArg(pair))
		}
		names[name] = t
	}
	return names, nil
}

// parseMode reads permission bits in octal, as chmod(1) does.
func parseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%s is no mode: write permission bits in octal, such as 0660", quoteArg(s))
	}
	return uint32(n), nil
}

// parseTime reads a time of RFC 3339, or a local time without its zone.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is no time: write 2026-01-31T15:04:05Z, or 2026-01-31 15:04 in local time", quoteArg(s))
}

// parseDelimiter reads the escapes \0 \a \b \f \n \r \t \v \\ \xHH, as printf(1) does.
func parseDelimiter(s string) (string, error) {
	if s == `\0` {
		return "\x00", nil
	}
	var out []byte
	for rest := s; rest != ""; {
		if strings.HasPrefix(rest, `\0`) {
			out, rest = append(out, 0), rest[2:]
			continue
		}
		if rest[0] != '\\' { // raw bytes pass as they are, UTF-8 or not
			out, rest = append(out, rest[0]), rest[1:]
			continue
		}
		r, multibyte, tail, err := strconv.UnquoteChar(rest, 0)
		if err != nil {
			return "", fmt.Errorf(`%s is no delimiter: write text with \0, \n, \t, \\ or \xHH`, quoteArg(s))
		}
		if multibyte {
			out = utf8.AppendRune(out, r)
		} else {
			out = append(out, byte(r))
		}
		rest = tail
	}
	return string(out), nil
}

// oneOf reads one of some words, each of which stands for a value.
func oneOf[T any](what string, words []string, values ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		for i, w := range words {
			if s == w {
				return values[i], nil
			}
		}
		var zero T
		return zero, fmt.Errorf("%s is no %s: %s%s", quoteArg(s), what, strings.Join(words, ", "), didYouMean(s, words))
	}
}

// didYouMean returns "; did you mean x?" with the word that s looks like, or "".
func didYouMean(s string, words []string) string {
	if w := suggest.Nearest(s, words); w != "" {
		return "; did you mean " + w + "?"
	}
	return ""
}
