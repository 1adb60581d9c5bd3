"""People's judgement: rounds of pictures that wait for labels, the page to give them on, and the queue they come by."""
