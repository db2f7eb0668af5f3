"""Where things lie: tiles, blocks, shards, levels. Pure: no file, no array of pixels but views."""
