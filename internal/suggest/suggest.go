// Package suggest finds the word that somebody may have meant.
package suggest

import "strings"

// slipsMax is how many letters a word may be away from the one that was meant.
const slipsMax = 2

// lengthMax is the longest word in bytes that may be a slip of the hand: the work grows with it.
const lengthMax = 64

// Nearest returns the first of the known words that begins with word (two letters of it at least), else the one with
// the fewest slips of the hand between them, two at most; "" if there is none.
func Nearest(word string, known []string) string {
	if len(word) > lengthMax {
		return ""
	}
	best, least := "", slipsMax+1
	for _, k := range known {
		if len(word) >= 2 && strings.HasPrefix(k, word) {
			return k
		}
		if n := distance(word, k); n < least && n < len(k) && n < len(word) {
			best, least = k, n
		}
	}
	return best
}

// distance counts the letters to insert, remove or replace to get from a to b (Levenshtein).
func distance(a, b string) int {
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
