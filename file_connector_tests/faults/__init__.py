"""What breaks, everywhere it can break: requests, answers, commits, processes. After at most two
ordinary runs the table equals the truth, and the audit of every commit on the way holds."""
