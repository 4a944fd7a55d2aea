package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant whose place is gone would break nothing.
func TestEveryMutantHasItsPlace(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("two mutants are called %s", m.name)
		}
		names[m.name] = true
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: what it replaces stands %d times in %s", m.name, n, m.file)
		}
	}
}
