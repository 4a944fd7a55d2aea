package rpc

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ipcd/ipcd/internal/reason"
)

// field is one setting: its path in the request's settings P, as a field mask names it, and how it is taken
// over to the settings S.
type field[S, P any] struct {
	path string
	// take sets the field of to from the request, if it is set there.
	take func(to *S, from *P) (set bool, err error)
	// reset sets it to its default. Nil: it has none.
	reset func(to, defaults *S)
}

// fields is every setting there is.
type fields[S, P any] []field[S, P]

// setting makes a field of at, the place in the settings, and get, which reads the request.
func setting[S, P, T any](path string, at func(*S) *T, get func(*P) (v T, set bool, err error)) field[S, P] {
	return field[S, P]{
		path: path,
		take: func(to *S, from *P) (bool, error) {
			v, set, err := get(from)
			if set && err == nil {
				*at(to) = v
			}
			return set, err
		},
		reset: func(to, defaults *S) { *at(to) = *at(defaults) },
	}
}

func withoutDefault[S, P any](f field[S, P]) field[S, P] {
	f.reset = nil
	return f
}

func span[P any](path string, low, high time.Duration, get func(*P) *durationpb.Duration) func(*P) (time.Duration, bool, error) {
	return func(s *P) (time.Duration, bool, error) {
		d := get(s)
		v, err := decodeDuration("settings."+path, d, 0, low, high)
		return v, d != nil, err
	}
}

// choice reads an enum. names lists the values of the schema, from 1, in words.
func choice[P any, E ~int32, T any](path string, values []T, names string, get func(*P) E) func(*P) (T, bool, error) {
	return func(s *P) (v T, set bool, err error) {
		e := get(s)
		if e == 0 {
			return v, false, nil
		}
		if e < 0 || int(e) > len(values) {
			return v, true, reason.Invalid("settings."+path, "%s %d is not known: it may be %s", path, e, names)
		}
		return values[e-1], true, nil
	}
}

// enum is the reverse of choice.
func enum[E ~int32, T comparable](values []T, v T) E { return E(slices.Index(values, v) + 1) }

// create takes over every field that is set.
func (all fields[S, P]) create(from *P) func(*S) error {
	return func(to *S) error {
		if from == nil {
			return nil
		}
		for _, f := range all {
			if _, err := f.take(to, from); err != nil {
				return err
			}
		}
		return nil
	}
}

// update takes over the fields that mask names. One that is named and unset returns to its default.
func (all fields[S, P]) update(from *P, mask *fieldmaskpb.FieldMask, example string, defaults S) (func(*S) error, error) {
	named, err := all.masked(mask, example)
	if err != nil {
		return nil, err
	}
	if from == nil {
		from = new(P)
	}
	return func(to *S) error {
		for _, f := range named {
			set, err := f.take(to, from)
			if err != nil {
				return err
			}
			if set {
				continue
			}
			if f.reset == nil {
				return reason.Invalid("settings."+f.path, "%s is named in update_mask and not set: it has no default; set it", f.path)
			}
			f.reset(to, &defaults)
		}
		return nil
	}, nil
}

// masked returns the fields that mask names, by themselves or by the message they stand in (`backoff` names
// both of its fields).
func (all fields[S, P]) masked(mask *fieldmaskpb.FieldMask, example string) (fields[S, P], error) {
	if len(mask.GetPaths()) == 0 {
		return nil, reason.Invalid("update_mask", "update_mask is empty, so nothing would change: name the fields of settings to take, such as `%s`", example)
	}
	var named fields[S, P]
	for _, path := range mask.Paths {
		known := false
		for _, f := range all {
			if f.path == path || strings.HasPrefix(f.path, path+".") {
				known = true
				if !slices.ContainsFunc(named, func(have field[S, P]) bool { return have.path == f.path }) {
					named = append(named, f)
				}
			}
		}
		if !known {
			return nil, reason.Invalid("update_mask", "update_mask names %.80q, which is no setting: it may name %s", path, strings.Join(all.paths(), ", "))
		}
	}
	return named, nil
}

// paths lists what a mask may name.
func (all fields[S, P]) paths() []string {
	var paths []string
	for _, f := range all {
		if group, _, nested := strings.Cut(f.path, "."); nested && !slices.Contains(paths, group) {
			paths = append(paths, group)
		}
		paths = append(paths, f.path)
	}
	return paths
}
