package main

import (
	"bytes"
	"testing"
	"time"
)

func TestProgressTellsBytesAndPercent(t *testing.T) {
	for _, test := range []struct {
		done, total int64
		want        string
	}{
		{512, 2048, "512 B of 2.0 KiB, 25 %"},
		{2048, 2048, "2.0 KiB of 2.0 KiB, 100 %"},
		{4096, 2048, "4.0 KiB of 2.0 KiB, 100 %"},
		{1 << 20, 0, "1.0 MiB"},
	} {
		if got := progressText(test.done, test.total); got != test.want {
			t.Errorf("%d of %d: %q, want %q", test.done, test.total, got, test.want)
		}
	}
}

func TestProgressIsShownOnTerminalsOnly(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, "fsck")
	p.next = time.Time{}
	p.show(1, 2)
	p.clear()
	if out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
	p.w = &out // as if it were one
	p.show(1, 2)
	p.next = time.Now().Add(time.Hour)
	p.show(2, 2) // too soon to show again
	p.clear()
	if want := "\rfsck: 1 B of 2 B, 50 %\x1b[K\r\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
