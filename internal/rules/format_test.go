package rules

import (
	"bytes"
	"go/format"
	"testing"
)

func TestGoFilesAreFormatted(t *testing.T) {
	for _, name := range files(t, isGo) {
		data := read(t, name)
		formatted, err := format.Source(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(data, formatted) {
			t.Errorf("%s is not formatted: run gofmt -w %s", name, name)
		}
	}
}
