package main

import "strings"

// didYouMean returns `; did you mean "x"?` with the word that s looks like, or "".
func didYouMean(s string, words []string) string {
	if w := nearest(s, words); w != "" {
		return "; did you mean " + w + "?"
	}
	return ""
}

// nearest returns the word that begins with s or is at most two slips of the hand away from it, or "".
func nearest(s string, words []string) string {
	best, bestDistance := "", 3
	for _, w := range words {
		if len(s) >= 2 && strings.HasPrefix(w, s) {
			return w
		}
		if d := distance(s, w); d < bestDistance && d < len(w) {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance counts the letters to insert, remove or replace to get from a to b (Levenshtein). Words
// longer than any that are compared here count as infinitely far.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
