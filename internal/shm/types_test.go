package shm

import (
	"math"
	"testing"
)

func TestTypesAcceptsThoseNamed(t *testing.T) {
	if Types(nil) != nil || Types([]int64{}) != nil {
		t.Error("no types do not stand for all")
	}
	for _, n := range []int64{1, 2, fewTypes, fewTypes + 1, 1000} {
		named := []int64{math.MaxInt64}
		for typ := int64(2); int64(len(named)) < n; typ += 2 {
			named = append(named, typ)
		}
		accepts := Types(named)
		for _, typ := range named {
			if !accepts(typ) || accepts(typ-1) {
				t.Errorf("of %d types: %d is accepted: %v, %d: %v", n, typ, accepts(typ), typ-1, accepts(typ-1))
			}
		}
	}
}

func TestTypesDoesNotChangeWithWhatItWasMadeOf(t *testing.T) {
	for _, n := range []int{1, 2, fewTypes, fewTypes + 1} {
		named := make([]int64, n)
		for i := range named {
			named[i] = int64(i + 1)
		}
		accepts := Types(named)
		for i := range named {
			named[i] = 1000
		}
		if !accepts(1) || !accepts(int64(n)) || accepts(1000) {
			t.Errorf("%d types: it follows the caller's slice", n)
		}
	}
}
