"""The two training loops, each flat and readable in one sitting."""
