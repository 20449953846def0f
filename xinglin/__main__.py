from xinglin.cli import main

main()
