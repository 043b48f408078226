from pocketdiffusion.cli.app import main

main()
