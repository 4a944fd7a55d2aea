package units

import "testing"

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "512": 512, "64KiB": 64 << 10, "64K": 64 << 10, "64kB": 64000, "16 MiB": 16 << 20, "1GiB": 1 << 30, "2T": 2 << 40} {
		if n, err := ParseSize(text); err != nil || n != want {
			t.Errorf("%q: %d, %v; want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5G", "12 parsecs", "99999999999T"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, n)
		}
	}
}

func TestSizesAreWrittenShort(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if s := FormatSize(n); s != want {
			t.Errorf("%d: %q, want %q", n, s, want)
		}
	}
}
