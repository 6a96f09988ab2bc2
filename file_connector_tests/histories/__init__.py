"""Random histories: people change a world while we sync it through every mishap; in the end the
table must equal the truth. One state machine, one stage a source; a new one adds its stage."""
