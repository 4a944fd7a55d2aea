package shm

import "slices"

// fewTypes is up to how many types a list is searched faster than a map.
const fewTypes = 8

// Types returns what tells whether a type is one of types, for ReaderConfig.Types; nil if types is empty, which stands
// for all. It keeps a copy.
func Types(types []int64) func(typ int64) bool {
	switch n := len(types); {
	case n == 0:
		return nil
	case n == 1:
		only := types[0]
		return func(t int64) bool { return t == only }
	case n <= fewTypes:
		types = slices.Clone(types)
		return func(t int64) bool { return slices.Contains(types, t) }
	}
	set := make(map[int64]struct{}, len(types))
	for _, t := range types {
		set[t] = struct{}{}
	}
	return func(t int64) bool {
		_, ok := set[t]
		return ok
	}
}
