"""Random histories: people change a world while we sync it through every mishap; in the end the table
must equal the truth. One state machine, one stage per source; a new source adds its stage."""
