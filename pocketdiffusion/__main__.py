from pocketdiffusion.cli import main

main()
