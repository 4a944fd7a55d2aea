package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// humanDuration shows a duration in the two largest units that matter: 0s, 15ms, 2.1s, 3m20s, 5h, 2d3h.
func humanDuration(d time.Duration) string {
	if d < 0 {
		return "-" + humanDuration(-d)
	}
	switch {
	case d == 0:
		return "0s"
	case d < time.Millisecond:
		return "<1ms"
	case d < time.Second:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	case d < 10*time.Second && d%time.Second >= 100*time.Millisecond:
		return fmt.Sprintf("%d.%ds", d/time.Second, d%time.Second/(100*time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return twoUnits(d, time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return twoUnits(d, time.Hour, "h", time.Minute, "m")
	}
	return twoUnits(d, 24*time.Hour, "d", time.Hour, "h")
}

func twoUnits(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		s += fmt.Sprintf("%d%s", rest, smallName)
	}
	return s
}

// humanBytes shows a number of bytes in binary units: 512B, 64KiB, 1.5MiB.
func humanBytes(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n), 0
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1023.95 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	text := strconv.FormatFloat(math.Round(value*10)/10, 'f', -1, 64)
	return text + units[unit]
}

// humanRate shows messages a second.
func humanRate(r float64) string {
	switch {
	case r <= 0 || math.IsNaN(r):
		return "0"
	case r < 0.05:
		return "<0.1"
	case r < 99.95:
		return strconv.FormatFloat(r, 'f', 1, 64)
	}
	return strconv.FormatFloat(r, 'f', 0, 64)
}

// count names a number of things: "1 message", "2 messages".
func count[T int | int64 | uint64](n T, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// timeLayout is RFC 3339 with all nine digits, so that times sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// machineTime is a time as json and yaml show it: UTC.
func machineTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// machineDuration is a duration as json and yaml show it: seconds, as protobuf's JSON mapping does.
func machineDuration(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	s := fmt.Sprintf("%s%d.%09d", sign, d/time.Second, d%time.Second)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + "s"
}
