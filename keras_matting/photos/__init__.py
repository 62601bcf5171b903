"""Photos in and out: files and folders, their colours and sizes, what a matte makes of them. No framework."""
