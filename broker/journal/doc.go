// Package journal is a segmented write-ahead log with group commit and recovery. It speaks bytes, not messages.
//
// A frame is metadata and payloads. Append puts it in memory, Wait makes it durable, together with what everybody
// else appended meanwhile: one write and one fdatasync. Recovery gives back the metadata of all frames in order;
// payloads are read by their position, when somebody wants them.
//
// # The log
//
// Segments are files of one size, with generations that rise by one. Their names are slots, which are
// used again.
//
//	0003.seg [header | frame | frame | ... | frame | gap | index | footer]   sealed
//	0000.seg [header | frame | frame | ...                                ]   active
//	0001.seg [header of generation 0, or of a freed one                   ]   spare
//
//	frame    [header, meta | payload entry | payload entry | ...]             all 8-byte aligned
//
// The index holds the metadata of a segment's frames again, so that recovery need not read the payloads. A segment
// is durable, its index included, before the header of the next one is written. Only the oldest is ever freed, by a
// head frame that names the new oldest; what was still needed of it was appended again before.
//
//	spare --roll--> active --roll--> sealed --Free--> held --last release--> spare, or removed
//
// # The end of the log
//
// It is where the first frame is that is not valid: its checksum, the next number, a run (one for each Open) not
// below the last one's. What lies behind may be torn by a power cut, or be damaged. Frames say up to where the
// log was durable when they were appended, and a mark frame says it when no other frame does soon. So a promise
// found behind the end tells damage, which is refused, from a torn tail, which is cut off.
package journal
