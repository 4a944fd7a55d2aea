// Package units reads and writes quantities as people do.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

var sizes = map[string]uint64{
	"": 1, "B": 1,
	"K": 1 << 10, "KIB": 1 << 10, "KB": 1e3,
	"M": 1 << 20, "MIB": 1 << 20, "MB": 1e6,
	"G": 1 << 30, "GIB": 1 << 30, "GB": 1e9,
	"T": 1 << 40, "TIB": 1 << 40, "TB": 1e12,
}

// ParseSize reads a number of bytes such as 512, 64KiB, 64K (the same) or 64kB (64,000).
func ParseSize(s string) (int64, error) {
	digits := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(s)
	}
	unit, known := sizes[strings.ToUpper(strings.TrimSpace(s[digits:]))]
	n, err := strconv.ParseUint(s[:digits], 10, 64)
	if err != nil || !known {
		return 0, fmt.Errorf("%.40q is no size: write bytes as 512, 64KiB, 16MiB, 1GiB or 64kB", s)
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%.40q is too large: a size may be up to %d bytes", s, int64(math.MaxInt64))
	}
	return int64(n * unit), nil
}

// FormatSize writes a number of bytes in the largest unit that leaves at least one before the point.
func FormatSize(n int64) string {
	names := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(names)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, names[i])
}
